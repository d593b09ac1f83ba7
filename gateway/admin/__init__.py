"""Who may administer: administrators, their sessions and tokens, second factors, and what they changed."""
