"""The administration's side: pages, live streams and the REST API, each calling the daemon for who has logged in."""
