#!/bin/sh
# A stand-in for OpenWrt's rc.common, its configuration functions and procd: runs an action of an init script and notes
# each call, one in a line, words separated by tabs.
#
#   rc_common.sh INIT_SCRIPT ACTION FOLDER_OF_CONFIGURATIONS
initscript=$1
action=$2
folder=$3
sections=

note() {
  printf '%s' "$1"
  shift
  for word in "$@"; do
    printf '\t%s' "$word"
  done
  printf '\n'
}

for name in procd_open_service procd_close_service procd_open_instance procd_close_instance procd_set_param \
  procd_add_reload_trigger procd_add_interface_trigger procd_send_signal mkdir chown chmod ln logger; do
  eval "$name() { note $name \"\$@\"; }"
done

id() {
  case "$2" in
    postern) echo 32768 ;;
    postern-portal) echo 32769 ;;
    postern-admin-web) echo 32770 ;;
    *) return 1 ;;
  esac
}

# A file of UCI is a shell script of these three.
config() {
  current=${2:-anonymous$((counter = counter + 1))}
  sections="$sections $current"
  eval "type_$current=\$1"
}

option() {
  eval "value_${current}_$1=\$2"
}

list() {
  :
}

config_load() {
  counter=0
  . "$folder/$1"
}

# As the real one, it says nothing of a name that it cannot look up.
config_get() {
  case "$1$2$3" in
    *[!A-Za-z0-9_]*) ;;
    *) eval "$1=\${value_${2}_$3:-\$4}" ;;
  esac
}

config_get_bool() {
  config_get "$@"
  eval "case \"\$$1\" in
    1 | on | true | yes | enabled) $1=1 ;;
    0 | off | false | no | disabled) $1=0 ;;
    *) $1=$4 ;;
  esac"
}

config_foreach() {
  for section in $sections; do
    eval "kind=\$type_$section"
    [ "$kind" != "$2" ] || "$1" "$section"
  done
}

start() {
  procd_open_service postern "$initscript"
  start_service
  service_triggers
  procd_close_service set
}

reload() {
  reload_service
}

. "$initscript"
note settings "$START" "$STOP" "$USE_PROCD"
"$action"
