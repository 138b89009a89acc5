package vap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// maxDepth bounds the nesting of a document.
const maxDepth = 8

// node is an element of a document: leaves have text, others have children.
type node struct {
	name     string
	text     string
	raw      strings.Builder // text, while the element is read
	children []*node
}

// readDocument reads Service-Data whose outermost element is root. What it lets through is bounded by maxData and maxDepth.
func readDocument(data []byte, root string) (*node, error) {
	if len(data) > maxData {
		return nil, fail(CodeTooLarge, "document of %d bytes is over %d", len(data), maxData)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	top := &node{}
	stack := []*node{top}
	for {
		tok, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad("document: %v", err)
		}
		here := stack[len(stack)-1]
		switch t := tok.(type) {
		case xml.StartElement:
			name := t.Name.Local
			if t.Name.Space != "" {
				name = t.Name.Space + ":" + name // no element of ours, so it is skipped
			}
			if len(stack) > maxDepth {
				return nil, bad("document: nested deeper than %d", maxDepth)
			}
			n := &node{name: name}
			here.children = append(here.children, n)
			stack = append(stack, n)
		case xml.EndElement:
			// RawToken pairs no tags; names are as in the start.
			name := t.Name.Local
			if t.Name.Space != "" {
				name = t.Name.Space + ":" + name
			}
			if len(stack) == 1 || here.name != name {
				return nil, bad("document: </%.32s> ends nothing", name)
			}
			here.text = strings.TrimSpace(here.raw.String())
			if here.text != "" && len(here.children) > 0 {
				return nil, bad("document: text beside elements in <%.32s>", here.name)
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if here == top && len(bytes.TrimSpace(t)) > 0 {
				return nil, bad("document: text outside of elements")
			}
			here.raw.Write(t)
		case xml.ProcInst:
			if t.Target != "xml" || here != top || len(top.children) > 0 {
				return nil, bad("document: processing instruction")
			}
		case xml.Directive:
			return nil, bad("document: <!...> is not allowed")
		}
	}
	if len(stack) != 1 {
		return nil, bad("document: <%.32s> does not end", stack[len(stack)-1].name)
	}
	if len(top.children) != 1 || top.children[0].name != root {
		return nil, bad("document: want one <%s>", root)
	}
	return top.children[0], nil
}

// one returns the text of an element that may stand once; optional ones are "" when they are not there.
func (n *node) one(name string, optional bool) (string, error) {
	found := n.all(name)
	switch {
	case len(found) > 1:
		return "", bad("<%s> stands twice in <%s>", name, n.name)
	case len(found) == 1 && len(found[0].children) > 0:
		return "", bad("elements in <%s>", name)
	case len(found) == 1:
		return found[0].text, nil
	case optional:
		return "", nil
	}
	return "", bad("<%s> has no <%s>", n.name, name)
}

func (n *node) all(name string) []*node {
	var found []*node
	for _, c := range n.children {
		if c.name == name {
			found = append(found, c)
		}
	}
	return found
}

// texts returns the leaves of that name, at most limit of them.
func (n *node) texts(name string, limit int) ([]string, error) {
	found := n.all(name)
	if len(found) > limit {
		return nil, fail(CodeTooLarge, "%d <%s>, at most %d", len(found), name, limit)
	}
	var list []string
	for _, c := range found {
		if len(c.children) > 0 {
			return nil, bad("elements in <%s>", name)
		}
		list = append(list, c.text)
	}
	return list, nil
}

// writer makes documents.
type writer struct{ b bytes.Buffer }

func (w *writer) leaf(name, text string) {
	w.b.WriteString("<" + name + ">")
	_ = xml.EscapeText(&w.b, []byte(text)) // a bytes.Buffer takes everything
	w.b.WriteString("</" + name + ">")
}

func (w *writer) open(name string)  { w.b.WriteString("<" + name + ">") }
func (w *writer) close(name string) { w.b.WriteString("</" + name + ">") }
