// Package answerfile reads the answers to the questions of a first installation (the guide's table 3, "server configuration data"):
// from a file on a second disk, or typed ([Ask]). [Parse] checks them, each with its line; [Answers.Config] gives the configuration of
// the proxy that follows from them, [Answers.System] what the first process of the appliance sets by itself.
//
// The format is a line "key: value" for each answer, in any order; "#" begins a comment line. docs/install.md has the keys.
package answerfile
