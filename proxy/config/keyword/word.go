package keyword

import (
	"strings"
	"unicode/utf8"
)

// Word is one word of a line.
type Word struct {
	Text string // never empty
	Col  int    // column of its first character, counted in characters from 1
	rest string // the line from this word on, for arguments that take the rest
}

// End is the column after the word's last character.
func (w Word) End() int { return w.Col + utf8.RuneCountInString(w.Text) }

// Rest is the line from this word to its end, without the blanks that end it.
func (w Word) Rest() string { return w.rest }

// Split cuts a line into words at blanks and tabs. Quotation marks have no meaning here: they stay part of a word, and arguments
// that may hold blanks take the rest of the line.
func Split(line string) []Word {
	line = strings.TrimRight(line, " \t")
	var words []Word
	col, start, startCol := 1, -1, 0
	for i, r := range line {
		blank := r == ' ' || r == '\t'
		switch {
		case !blank && start < 0:
			start, startCol = i, col
		case blank && start >= 0:
			words = append(words, Word{Text: line[start:i], Col: startCol, rest: line[start:]})
			start = -1
		}
		col++
	}
	if start >= 0 {
		words = append(words, Word{Text: line[start:], Col: startCol, rest: line[start:]})
	}
	return words
}

// Join makes one word of words that follow each other, with the blanks between them left out.
func Join(words []Word) Word {
	w := words[0]
	for _, next := range words[1:] {
		w.Text += next.Text
	}
	return w
}
