package config

import "strings"

// Difference gives what must be typed to make one configuration of another, block by block: "- " before what goes, "+ " before what comes, and
// two blanks before the line of a sub-mode that the changes stand in. Secrets are masked, so a changed password is told by a line of its own.
func Difference(from, to *Config) []string {
	a, b := blocks(from.String()), blocks(to.String())
	var out []string
	shown := "" // the mode whose line was told last
	tell := func(sign string, x block) {
		if x.parent != "" && x.parent != shown {
			out = append(out, "  "+x.parent)
			shown = x.parent
		}
		if x.text[0] != ' ' {
			shown = x.text
		}
		out = append(out, sign+x.text)
	}
	i, j := 0, 0
	for _, c := range append(longest(a, b), pair{len(a), len(b)}) {
		for ; i < c.a; i++ {
			tell("- ", a[i])
		}
		for ; j < c.b; j++ {
			tell("+ ", b[j])
		}
		i, j = c.a+1, c.b+1
	}
	if from.UCIME != nil && to.UCIME != nil && from.UCIME.TicketPassword != to.UCIME.TicketPassword && from.UCIME.TicketEpoch == to.UCIME.TicketEpoch {
		out = append(out, "  the ticket password is another one")
	}
	if peerPasswordsDiffer(from.PeerServer, to.PeerServer) {
		out = append(out, "  a password of the peer-server is another one")
	}
	return out
}

// Change is a line that one configuration has and the other has not.
type Change struct {
	Text string // "+ " or "- " and the line, or a sentence about a secret
	Mode string // the line of the mode that it stands in, "" in global mode
}

// Changes gives what Difference does, each line with the mode that it stands in.
func Changes(from, to *Config) []Change {
	var out []Change
	mode := ""
	told := Difference(from, to)
	for i, line := range told {
		text := strings.TrimSpace(line[2:])
		switch {
		case line[0] != ' ':
			if line[2] != ' ' {
				mode = ""
			}
			out = append(out, Change{line[:2] + text, mode})
			if line[2] != ' ' {
				mode = text
			}
		case i+1 < len(told) && told[i+1][0] != ' ': // what follows stands in it
			mode = text
		default:
			out = append(out, Change{Text: text})
		}
	}
	return out
}

// block is a line with the line of the mode that it stands in.
type block struct{ text, parent string }

type pair struct{ a, b int }

func blocks(text string) []block {
	var out []block
	var above []string
	for _, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '!' {
			continue
		}
		depth := len(line) - len(strings.TrimLeft(line, " "))
		above = append(above[:min(depth, len(above))], line)
		parent := ""
		if depth > 0 && len(above) > 1 {
			parent = above[len(above)-2]
		}
		out = append(out, block{line, parent})
	}
	return out
}

// longest is the longest common subsequence: what stays.
func longest(a, b []block) []pair {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []pair
	for i := range head {
		out = append(out, pair{i, i})
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	const bound = 4 << 20 // cells: beyond it the middle is told as replaced, rather than holding the daemon's memory
	if len(x)*len(y) <= bound {
		length := make([][]int, len(x)+1)
		for i := range length {
			length[i] = make([]int, len(y)+1)
		}
		for i := len(x) - 1; i >= 0; i-- {
			for j := len(y) - 1; j >= 0; j-- {
				if x[i] == y[j] {
					length[i][j] = length[i+1][j+1] + 1
				} else {
					length[i][j] = max(length[i+1][j], length[i][j+1])
				}
			}
		}
		for i, j := 0, 0; i < len(x) && j < len(y); {
			switch {
			case x[i] == y[j]:
				out = append(out, pair{head + i, head + j})
				i, j = i+1, j+1
			case length[i+1][j] >= length[i][j+1]:
				i++
			default:
				j++
			}
		}
	}
	for i := tail; i > 0; i-- {
		out = append(out, pair{len(a) - i, len(b) - i})
	}
	return out
}
