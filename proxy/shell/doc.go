// Package shell is the appliance's command line: the commands that an operator types, the control socket over which they reach the daemon,
// and the client behind `imeproxy shell`.
//
// Data in: command lines, one a request, over a Unix stream socket; snapshots of the running appliance through Backend. Data out: the
// layouts of package observe, filtered (`| include RE` and so on) or as JSON (`| json`), errors in an ASA's words.
//
// Parts: an Executor makes one Session a connection, in which the modes live; the commands stand in one table on the keyword trie of
// proxy/config/keyword, which gives abbreviations, `?` and error places; those of configuration mode come from proxy/config, and act through a
// Keeper (package revision). Serve answers on the socket; Dial and Run are its other end; a Local is a dialogue in the daemon itself, for SSH. Interact
// is a terminal over either: line editing, completion, pages.
//
// Control protocol: frames of a 4-byte length (big-endian) and that many bytes of JSON. The server greets with {"output": BANNER, "prompt": ...} (or refuses
// with {"done": true, "exit": 1, "error": ...}). A request is {"command": "LINE"}. The answer is any number of {"output": "..."} and one
// {"done": true, "exit": 0 or 1, "error": "...", "prompt": "...", "hidden": bool, "close": bool}; hidden says that the prompt is empty on purpose,
// because lines of a certificate are read. With {"complete": true} the line is only extended, as Tab does, and the answer is {"done": true, "line":
// "..."}. {"secret": true} says that the next line is a password, {"asks": true} of a request that a person typed it, who can be
// asked about it. With {"interrupt": true} the request before it is ended if it is a command that goes on; there is no answer to that. Requests of one connection are
// answered in order; the end of the connection ends the command that runs.
//
// Limits: MaxRequest bytes a request, MaxLine bytes a command line, MaxClients connections, MaxPattern bytes a filter's expression (RE2:
// time linear in the text); a request that has begun must end within RequestTime, an answer frame must be taken within WriteTime, a
// connection may idle for IdleTime. The socket has mode 0600 and serves root and the daemon's own user alone (SO_PEERCRED).
package shell
