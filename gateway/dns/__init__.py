"""The resolver for guests: answers the portal's own names and the canaries, forwards everything else unchanged."""
