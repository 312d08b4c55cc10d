// Command group-signal names what a viewer's groups mean, for policies: signals such as
// `group-signal/contractor`. Hook `enrich`; built with the standard Go toolchain.
package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"unsafe"
)

// Settings are signals by the beginning of a group's name.
type settings struct {
	Signals map[string]string `json:"signals"`
}

func read(text string) (settings, error) {
	var s settings
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, err
	}
	for beginning, signal := range s.Signals {
		if beginning == "" || signal == "" {
			return s, fmt.Errorf("`signals` has an empty name: %q: %q", beginning, signal)
		}
	}
	return s, nil
}

// signalsOf names what the groups mean, each signal once, sorted.
func (s settings) signalsOf(groups []string) []string {
	found := map[string]bool{}
	for _, group := range groups {
		for beginning, signal := range s.Signals {
			if strings.HasPrefix(group, beginning) {
				found[signal] = true
			}
		}
	}
	names := make([]string, 0, len(found))
	for signal := range found {
		names = append(names, signal)
	}
	sort.Strings(names)
	return names
}

//go:wasmimport nowconnect:plugin/config@0.2.0 json
func configJSON(answer unsafe.Pointer)

//go:wasmexport nowconnect:plugin/lifecycle@0.2.0#describe
func describe() uint32 {
	w := writer{}
	w.text("group-signal")
	w.text("0.1.0")
	w.text("names what a viewer's groups mean")
	return w.done()
}

//go:wasmexport nowconnect:plugin/lifecycle@0.2.0#check-config
func checkConfig(text, length uint32) uint32 {
	_, err := read(textAt(text, length))
	w := writer{}
	w.result(err)
	return w.done()
}

//go:wasmexport nowconnect:plugin/enrich-hook@0.2.0#signals
func signals(question uint32) uint32 {
	r := reader{at: question}
	r.skipCall()
	r.text() // connector
	r.text() // listener
	r.skipPeer()
	r.optionalText() // subject
	r.optionalText() // issuer
	groups := r.texts()

	var answer [2]uint32
	configJSON(unsafe.Pointer(&answer))
	s, err := read(textAt(answer[0], answer[1]))
	w := writer{}
	w.result(err)
	if err == nil {
		w.texts(s.signalsOf(groups))
		w.word(0) // carry: an empty list
		w.word(0)
	}
	return w.done()
}

// The host calls exports; there is nothing to do by itself.
func main() {}
