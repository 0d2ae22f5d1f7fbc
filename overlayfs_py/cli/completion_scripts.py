"""Completion scripts for bash, zsh and fish: they pass the line to the command and show its answer.

An answer has one line for each candidate: ``TYPE,WORD``, a tab and its meaning. The types: ``plain`` is a
whole word; ``part`` continues without a blank, which click's own scripts do not support; with ``dir`` and
``file`` the shell completes paths itself.
"""

_BASH = """\
_@NAME@_completion() {
    local type value
    COMPREPLY=()
    while IFS=',' read -r type value; do
        value=${value%%$'\\t'*}
        if [[ $value == *[^[:alnum:]/_.,:=+@%-]* ]]; then printf -v value %q "$value"; fi
        case $type in
            plain) COMPREPLY+=("$value") ;;
            part) COMPREPLY+=("$value"); compopt -o nospace ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD @ASK@=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F _@NAME@_completion @PROGRAM@
"""
_ZSH = """\
#compdef @PROGRAM@
_@NAME@_completion() {
    local -a plain plain_shown parts parts_shown
    local line type value shown
    for line in "${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
@ASK@=zsh_complete @PROGRAM@ 2>/dev/null)}"; do
        type=${line%%,*} value=${${line#*,}%%$'\\t'*} shown=${line#*$'\\t'}
        shown="$value${shown:+  -- $shown}"
        case $type in
            plain) plain+=("$value"); plain_shown+=("$shown") ;;
            part) parts+=("$value"); parts_shown+=("$shown") ;;
            dir) _path_files -/ ;;
            file) _path_files -f ;;
        esac
    done
    (( $#plain )) && compadd -U -V plain -l -d plain_shown -- $plain
    (( $#parts )) && compadd -U -V parts -l -d parts_shown -S '' -- $parts
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _@NAME@_completion "$@"
else
    compdef _@NAME@_completion @PROGRAM@
fi
"""
_FISH = """\
function _@NAME@_completion
    set -l answer (env @ASK@=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -t) @PROGRAM@ 2>/dev/null)
    for line in $answer
        set -l found (string split --max 1 "," -- $line)
        switch $found[1]
            case plain part
                echo $found[2]
            case dir
                __fish_complete_directories (commandline -t)
            case file
                __fish_complete_path (commandline -t)
        end
    end
end
complete --no-files --command @PROGRAM@ --arguments "(_@NAME@_completion)"
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
