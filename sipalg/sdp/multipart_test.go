package sdp_test

import (
	"errors"
	"strings"
	"testing"

	"imeproxy/sipalg/sdp"
)

// crlf writes a body with visible lines.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") }

func TestFindPart(t *testing.T) {
	const sd = "v=0\r\ns=x"
	for _, tc := range []struct {
		name, contentType, body string
		want                    string // "" = none
	}{
		{"alone", "application/sdp", sd, sd},
		{"alone, with parameter and case", " Application/SDP ; charset=utf-8", sd, sd},
		{"something else", "text/plain", sd, ""},
		{"something that sounds alike", "application/sdpx", sd, ""},
		{
			"one of two, preamble and epilogue", `multipart/mixed;boundary=b1`,
			crlf("preamble --b1", "--b1", "Content-Type: application/sdp", "", sd, "--b1", "content-type:text/plain", "", "hi", "--b1--", "epilogue", "--b1", "ignored"), sd,
		},
		{
			"quoted boundary, parameters around, blanks after it", `multipart/mixed; type="a;b\"=c"; Boundary = "b 1?=" ; x=y`,
			crlf("--b 1?=  \t", "C: application/sdp", "Content-ID: <1@x>", "", sd, "--b 1?=-- "), sd,
		},
		{
			"nested", `multipart/mixed;boundary=out`,
			crlf("--out", "Content-Type: multipart/alternative;", " boundary=\"in\"", "", "--in", "Content-Type: text/plain", "", "v=0", "--in", "Content-Type: application/sdp", "Content-Transfer-Encoding: 8bit", "", sd, "--in--", "--out--"), sd,
		},
		{"no part of that type", `multipart/mixed;boundary=b`, crlf("--b", "", "v=0", "--b", "Content-Type: text/plain", "", "--b--"), ""},
		{"final line end of its own", `multipart/mixed;boundary=b`, crlf("--b", "Content-Type: application/sdp", "", sd, "", "--b--", ""), sd + "\r\n"},
		{"empty description", `multipart/mixed;boundary=b`, crlf("--b", "Content-Type: application/sdp", "", "", "--b--"), "(empty)"},
		{"boundary inside a line", `multipart/mixed;boundary=b`, crlf("--b", "Content-Type: application/sdp", "", sd, "a=--b", "--b--"), sd + "\r\na=--b"},
		{"16 parts", `multipart/mixed;boundary=b`, strings.Repeat("--b\r\n\r\nx\r\n", 15) + crlf("--b", "Content-Type: application/sdp", "", sd, "--b--"), sd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, replace, ok, err := sdp.FindPart(tc.contentType, []byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if ok != (tc.want != "") || ok != (replace != nil) {
				t.Fatalf("found %v", ok)
			}
			if !ok {
				return
			}
			want := strings.TrimSuffix(tc.want, "(empty)")
			if string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if same := string(replace(got)); same != tc.body {
				t.Errorf("the same again gives %q", same)
			}
			if want != "" {
				if other := string(replace([]byte("NEW\r\nLONGER TEXT"))); other != strings.Replace(tc.body, want, "NEW\r\nLONGER TEXT", 1) && tc.name != "nested" {
					t.Errorf("replaced: %q", other)
				}
			}
		})
	}
}

func TestFindPartRefuses(t *testing.T) {
	part := func(head ...string) string {
		return crlf(append(append([]string{"--b"}, head...), "", "v=0", "--b--")...)
	}
	const sdpType = "Content-Type: application/sdp"
	const mixed = "multipart/mixed;boundary=b"
	nest := func(inner string) string {
		return crlf("--b", "Content-Type: multipart/mixed;boundary=c", "", "--c", "Content-Type: multipart/mixed;boundary=d", "", inner, "--c--", "--b--")
	}
	for name, tc := range map[string]struct{ contentType, body string }{
		"no boundary parameter":         {"multipart/mixed", part(sdpType)},
		"empty boundary":                {`multipart/mixed;boundary=""`, part(sdpType)},
		"boundary of 71":                {"multipart/mixed;boundary=" + strings.Repeat("b", 71), part(sdpType)},
		"two boundaries":                {"multipart/mixed;boundary=b;boundary=c", part(sdpType)},
		"quote without end":             {`multipart/mixed;boundary="b`, part(sdpType)},
		"text after a quote":            {`multipart/mixed;boundary="b"c`, part(sdpType)},
		"parameter without value":       {"multipart/mixed;x;boundary=b", part(sdpType)},
		"boundary ends in a blank":      {`multipart/mixed;boundary="b "`, part(sdpType)},
		"no closing boundary":           {mixed, crlf("--b", sdpType, "", "v=0", "")},
		"no boundary at all":            {mixed, "v=0\r\n"},
		"empty":                         {mixed, ""},
		"boundary after a bare LF":      {mixed, "--b\r\n" + sdpType + "\r\n\r\nv=0\n--b\r\n\r\nx\r\n--b--"},
		"boundary ended by a bare LF":   {mixed, "--b\n" + sdpType + "\r\n\r\nv=0\r\n--b--"},
		"longer line as boundary":       {mixed, crlf("--b", sdpType, "", "v=0", "--bc", "--b--")},
		"longer closing line":           {mixed, crlf("--b", sdpType, "", "v=0", "--b--c", "--b--")},
		"no end of header":              {mixed, crlf("--b", sdpType, "--b--")},
		"description without content":   {mixed, crlf("--b", sdpType, "", "--b--")},
		"header without colon":          {mixed, part("hello")},
		"folded line first":             {mixed, part(" folded", sdpType)},
		"bare LF in a header":           {mixed, part("X: y\n" + sdpType)},
		"two types":                     {mixed, part(sdpType, "Content-Type: text/plain")},
		"header of 8193 bytes":          {mixed, part("X: "+strings.Repeat("x", 8192), sdpType)},
		"base64":                        {mixed, part(sdpType, "Content-Transfer-Encoding: base64")},
		"quoted-printable":              {mixed, part(sdpType, "content-transfer-encoding: Quoted-Printable")},
		"two descriptions":              {mixed, crlf("--b", sdpType, "", "v=0", "--b", sdpType, "", "v=0", "--b--")},
		"17 parts":                      {mixed, strings.Repeat("--b\r\n\r\nx\r\n", 17) + "--b--"},
		"three levels":                  {mixed, nest(crlf("--d", sdpType, "", "v=0", "--d--"))},
		"17 parts in two levels":        {mixed, crlf("--b", "Content-Type: multipart/mixed;boundary=c", "", strings.Repeat("--c\r\n\r\nx\r\n", 16)+"--c--", "--b--")},
		"inner boundary without an end": {mixed, crlf("--b", "Content-Type: multipart/mixed;boundary=c", "", "--c", sdpType, "", "v=0", "--b--")},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, ok, err := sdp.FindPart(tc.contentType, []byte(tc.body))
			if !errors.Is(err, sdp.ErrMultipart) || ok {
				t.Errorf("got %q, %v, %v", got, ok, err)
			}
		})
	}
}
