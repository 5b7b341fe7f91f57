# SPDX-License-Identifier: MIT OR Apache-2.0
# Figures: judged, printed a line each, and kept for JSON. Sourced by run.sh, in bash.

FIGURES=()

# summary VALUE...: "least median most runs", the runs sorted and joined by commas.
summary() {
    printf '%s\n' "$@" | sort -n | awk -v OFMT=%.10g '
        { v[NR] = $1; runs = runs (NR > 1 ? "," : "") $1 }
        END { print v[1], NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2, v[NR], runs }'
}

# verdict VALUE TARGET: ok, SHORT, or - where there is no target.
verdict() {
    awk -v value="$1" -v target="$2" 'BEGIN {
        split(target, t, " ")
        limit = t[2] + 0
        met["<"] = value < limit; met["<="] = value <= limit; met[">="] = value >= limit
        if (target == "-") print "-"
        else if (!(t[1] in met)) exit 1
        else print met[t[1]] ? "ok" : "SHORT" }'
}

LINE='%-52s %27s %-9s %27s %6s %-9s %s\n'
figure_heading() {
    printf "$LINE" name ours unit theirs ratio target verdict
}

# figure NAME UNIT JUDGED TARGET OURS... [against THEIRS...]
# JUDGED is what the target is for: median or most of ours, or ratio, which is that of the medians,
# ours to theirs. TARGET is "< N", "<= N", ">= N" or "-"; of a ratio, N ends in x.
figure() {
    local name=$1 unit=$2 judged=$3 target=$4 ours=() least median most runs ratio=- verdict
    local theirs=- their_least their_median their_most their_runs json_theirs=null json_ratio=null
    shift 4
    while [ $# -gt 0 ] && [ "$1" != against ]; do
        ours+=("$1")
        shift
    done
    read -r least median most runs < <(summary "${ours[@]}")
    if [ $# -gt 0 ]; then
        read -r their_least their_median their_most their_runs < <(summary "${@:2}")
        ratio=$(awk -v a="$median" -v b="$their_median" 'BEGIN { printf "%.3f", a / b }')
        theirs="$their_median ($their_least..$their_most)"
        json_theirs="{\"median\":$their_median,\"least\":$their_least,\"most\":$their_most,\"runs\":[$their_runs]}"
        json_ratio=$ratio
    fi
    verdict=$(verdict "${!judged}" "$target")
    printf "$LINE" "$name" "$median ($least..$most)" "$unit" "$theirs" "$ratio" "$target" "$verdict"
    FIGURES+=("{\"name\":\"$name\",\"unit\":\"$unit\",\"median\":$median,\"least\":$least,\"most\":$most,\
\"runs\":[$runs],\"theirs\":$json_theirs,\"ratio\":$json_ratio,\"target\":\"$target\",\
\"judged_by\":\"$judged\",\"verdict\":\"$verdict\"}")
}

# values FILE KEY: the values of the lines "KEY<TAB>value".
values() { awk -v key="$2" '$1 == key { print $2 }' "$1"; }

# figures_of FILE PREFIX "KEY|NAME|UNIT|JUDGED|TARGET"...
figures_of() {
    local file=$1 prefix=$2 spec key name unit judged target
    shift 2
    for spec in "$@"; do
        IFS='|' read -r key name unit judged target <<<"$spec"
        # Word splitting is meant: a value a run.
        figure "$prefix: $name" "$unit" "$judged" "$target" $(values "$file" "$key")
    done
}

# write_json FILE MACHINE: all figures, and the machine they are from, which is JSON already.
write_json() {
    local IFS=,
    mkdir -p "$(dirname "$1")"
    printf '{"machine":%s,"figures":[%s]}\n' "$2" "${FIGURES[*]}" >"$1"
}
