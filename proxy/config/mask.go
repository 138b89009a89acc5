package config

import (
	"strings"
	"unicode/utf8"

	"imeproxy/proxy/config/keyword"
)

// maskLine replaces the words of a line that may be a secret by *****, also in a line that is mistyped, and says which words
// those are.
func maskLine(line string, words []keyword.Word) (shown string, masked []bool) {
	masked = secretWords(words)
	var b strings.Builder
	runes := []rune(line)
	at := 0
	for i, w := range words {
		if !masked[i] {
			continue
		}
		b.WriteString(string(runes[at : w.Col-1]))
		b.WriteString(stars)
		at = w.End() - 1
	}
	b.WriteString(string(runes[at:]))
	return b.String(), masked
}

// maskedColumn is the place of a column of the line in the shown line.
func maskedColumn(col int, words []keyword.Word, masked []bool) int {
	shift := 0
	for i, w := range words {
		if masked[i] && w.End() <= col {
			shift += utf8.RuneCountInString(stars) - (w.End() - w.Col)
		}
	}
	return col + shift
}

// secretWords finds the words that hold a secret or may do so in a line that was mistyped: everything behind a word like
// "password", "passphrase" or "pkcs12", and in a ticket line every word that is none of the command's own.
func secretWords(words []keyword.Word) []bool {
	masked := make([]bool, len(words))
	first := 0
	if len(words) > 1 && strings.EqualFold(words[0].Text, "no") {
		first = 1
	}
	ticket := false
	for i, w := range words {
		t := strings.ToLower(w.Text)
		if i == first {
			ticket = len(t) <= 40 && (abbreviates(t, "ticket") || near(t, "ticket") <= 2)
		}
		behind := strings.HasPrefix(t, "pass") || strings.HasPrefix(t, "pkcs") || (len(t) > 4 && len(t) <= 40 && near(t, "password") <= 3)
		if ticket && i > first && !ticketWord(t) {
			masked[i] = true
		}
		if (behind || (ticket && abbreviates(t, "password"))) && i+1 < len(words) {
			for j := i + 1; j < len(words); j++ {
				masked[j] = true
			}
			break
		}
	}
	return masked
}

// ticketWord says whether a word belongs to the ticket command itself.
func ticketWord(t string) bool {
	for _, k := range []string{"epoch", "password", "reject-action", "drop", "reject"} {
		if abbreviates(t, k) || (len(t) <= 40 && near(t, k) <= 1) {
			return true
		}
	}
	return len(t) <= 3 && strings.Trim(t, "0123456789") == ""
}

func abbreviates(t, keyword string) bool { return t != "" && strings.HasPrefix(keyword, t) }

// near is the number of letters that must be added, removed or changed to make b of a.
func near(a, b string) int {
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
		}
		prev = cur
	}
	return prev[len(b)]
}
