"""What guests reach: the redirect, the login, status and logout pages, and the login API."""
