# Completion of `postern` for bash.
#
# Either   eval "$(postern completion bash)"   or a file of this content in
# /usr/share/bash-completion/completions/postern.
# Clients are asked for at the control socket; without permission there is nothing to offer, and nothing is printed.

_postern_words() {
    # The options and verbs of a command, as `postern COMMAND --help` has them.
    case "$1" in
        "") echo "status doctor sessions leases events vouchers users admins setup-code config ruleset radius metrics debug analyze capture backup restore upgrade restart factory-reset completion" ;;
        doctor) echo "--config" ;;
        sessions) echo "list show kick authorize" ;;
        "sessions list") echo "--zone --state --search --limit" ;;
        "sessions show") _postern_clients ;;
        "sessions kick") echo "--cause"; _postern_clients ;;
        "sessions authorize") echo "--minutes --username $_postern_limits"; _postern_clients ;;
        leases) echo "list release" ;;
        "leases list") echo "--zone" ;;
        "leases release") _postern_clients ;;
        events) echo "--client --follow --limit" ;;
        vouchers) echo "create batches list revoke remove" ;;
        "vouchers create") echo "--letters --length --devices --valid-for --expires-in --zone --note $_postern_limits" ;;
        "vouchers list") echo "--batch --state --search --limit" ;;
        "vouchers revoke") echo "--end-sessions" ;;
        users) echo "add list passwd remove" ;;
        "users add") echo "--devices --valid-for --note $_postern_limits" ;;
        admins) echo "list add passwd remove reset-totp" ;;
        "admins add") echo "--role" ;;
        config) echo "check show reload" ;;
        "config show") echo "--effective" ;;
        ruleset) echo "print check" ;;
        radius) echo "status" ;;
        debug) echo "profile heap tasks rate-limiters" ;;
        "debug profile") echo "--seconds" ;;
        "debug heap") echo "--trace" ;;
        restore) echo "--yes --look" ;;
        upgrade) echo "--older --place" ;;
        factory-reset) echo "--confirm" ;;
        completion) echo "bash" ;;
    esac
}

_postern_limits="--session-time --idle-time --upload --download --total --upload-rate --download-rate"

_postern_clients() {
    # The first column of the listing is the MAC; timeout, because a completion must never hang a shell.
    timeout 2 postern sessions list --limit 200 2>/dev/null | awk '$1 ~ /^[0-9a-f:]+:/ { print $1 }'
}

_postern() {
    local current previous command="" word position
    current=${COMP_WORDS[COMP_CWORD]}
    previous=${COMP_WORDS[COMP_CWORD - 1]}
    # Bash splits words at colons, so that a MAC arrives in pieces; this puts them together again.
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n : cur prev
        # shellcheck disable=SC2154  # set by the function above
        current=$cur previous=$prev
    fi
    for ((position = 1; position < COMP_CWORD; position++)); do
        word=${COMP_WORDS[position]}
        case "$word" in
            --socket | --config) ((position++)) ;;
            -*) ;;
            *)
                # A command has at most one verb; what follows are its arguments.
                case "$command" in
                    "") command=$word ;;
                    *\ *) ;;
                    sessions | leases | vouchers | users | admins | config | ruleset | radius | debug) command="$command $word" ;;
                esac
                ;;
        esac
    done

    COMPREPLY=()
    case "$previous" in
        --socket | --config)
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        --state)
            mapfile -t COMPREPLY < <(compgen -W "held authenticating opening online closing" -- "$current")
            return
            ;;
        --cause)
            mapfile -t COMPREPLY < <(compgen -W "admin-reset user-request nas-request" -- "$current")
            return
            ;;
        --trace)
            mapfile -t COMPREPLY < <(compgen -W "start stop" -- "$current")
            return
            ;;
        --client)
            mapfile -t COMPREPLY < <(compgen -W "$(_postern_clients)" -- "$current")
            ;;
        --zone | --search | --limit | --length | --expires-in | --batch | --confirm | --minutes | --devices | --valid-for | --note | --username | --seconds | --session-time | --idle-time | --upload | \
            --download | --total | --upload-rate | --download-rate)
            return # a value of the user's own
            ;;
        *)
            case "$command" in
                "config check" | analyze | capture)
                    mapfile -t COMPREPLY < <(compgen -f -- "$current")
                    ;;
                *)
                    mapfile -t COMPREPLY < <(compgen -W "$(_postern_words "$command") --json --socket --help" -- "$current")
                    ;;
            esac
            ;;
    esac
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "$current"
    fi
}

complete -F _postern postern
