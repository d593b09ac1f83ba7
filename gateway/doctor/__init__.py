"""The doctor: what is wrong with the gateway and its surroundings, in sentences, each with the way to mend it.

Modules named after a matter (`interfaces`, `names`, `login_pages` …) hold the facts about it and judge them, purely.
`probes`, `kernel` and `files` find the facts, blocking and bounded. `examination` runs many such checks at once, so
that none can spoil or hold up another. `checks` lists those that need nothing of the daemon; `inside` adds those that
ask its rooms, `outside` is the examination without a daemon.
"""
