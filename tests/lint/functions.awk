#!/usr/bin/awk -f
# Functions longer than 70 lines, by the house style: an opening brace in column 1 starts a body, a closing
# brace in column 1 ends it. Exceptions: tests/lint/long.allow, "file:function reason".
BEGIN {
	while ((getline row < "tests/lint/long.allow") > 0) {
		split(row, w, " ")
		allow[w[1]] = 1
	}
}
FNR == 1 { start = 0 }
/^[a-zA-Z_].*\(/ && !/;$/ { head = $0 }
/^\{/ { start = FNR }
/^\}/ && start {
	n = FNR - start - 1
	name = head
	sub(/\(.*/, "", name)
	sub(/.*[ *]/, "", name)
	if (n > 70 && !((FILENAME ":" name) in allow)) {
		printf "%s:%d: %s is %d lines (70 at most)\n", FILENAME, start, name, n
		bad = 1
	}
	start = 0
}
END { exit bad }
