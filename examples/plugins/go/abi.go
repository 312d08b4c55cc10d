package main

import "unsafe"

// How the component model lays out values in memory, as far as this plugin needs it: a text or
// list is an address and a length, an option a byte and the value, each at its alignment.

// kept holds what the host was given, so that it is not collected before the host has read it.
// An instance lives for one call.
var kept [][]byte

//go:wasmexport cabi_realloc
func cabiRealloc(old, oldSize, align, size uint32) uint32 {
	if size == 0 {
		return align
	}
	block := make([]byte, size+align)
	kept = append(kept, block)
	at := (address(block) + align - 1) &^ (align - 1)
	copy(bytesAt(at, size), bytesAt(old, min(oldSize, size)))
	return at
}

func address(block []byte) uint32 {
	return uint32(uintptr(unsafe.Pointer(&block[0])))
}

func bytesAt(at, length uint32) []byte {
	if length == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(at))), length)
}

func textAt(at, length uint32) string {
	return string(bytesAt(at, length))
}

// reader goes over a structure in memory, field by field.
type reader struct{ at uint32 }

func (r *reader) align(to uint32) { r.at = (r.at + to - 1) &^ (to - 1) }

func (r *reader) byte() byte {
	value := *(*byte)(unsafe.Pointer(uintptr(r.at)))
	r.at++
	return value
}

func (r *reader) word() uint32 {
	r.align(4)
	value := *(*uint32)(unsafe.Pointer(uintptr(r.at)))
	r.at += 4
	return value
}

func (r *reader) long() {
	r.align(8)
	r.at += 8
}

func (r *reader) text() string {
	at := r.word()
	return textAt(at, r.word())
}

func (r *reader) optionalText() (string, bool) {
	r.align(4)
	some := r.byte() != 0
	return r.text2(some), some
}

// text2 reads a text whose place may hold nothing.
func (r *reader) text2(some bool) string {
	at, length := r.word(), r.word()
	if !some {
		return ""
	}
	return textAt(at, length)
}

func (r *reader) texts() []string {
	items := reader{at: r.word()}
	texts := make([]string, r.word())
	for i := range texts {
		texts[i] = items.text()
	}
	return texts
}

func (r *reader) skipList() {
	r.word()
	r.word()
}

func (r *reader) skipCall() {
	r.text()
	for range 4 { // trace parent, tenant, session, flow
		r.optionalText()
	}
	r.long() // generation
	r.long() // budget
	r.byte() // shadow
	r.skipList()
	r.align(8)
}

func (r *reader) skipPeer() {
	r.text()
	r.at += 2 // port
	for range 3 { // TLS version, server name, client's name
		r.optionalText()
	}
	r.skipList()
}

// writer builds a structure of words.
type writer struct{ words []uint32 }

func (w *writer) word(value uint32) { w.words = append(w.words, value) }

func (w *writer) text(text string) {
	block := append([]byte(text), 0)
	kept = append(kept, block)
	w.word(address(block))
	w.word(uint32(len(text)))
}

func (w *writer) texts(texts []string) {
	items := writer{}
	for _, text := range texts {
		items.text(text)
	}
	w.word(items.done())
	w.word(uint32(len(texts)))
}

// result begins a `result`: what follows is the value, or the error that is written here.
func (w *writer) result(err error) {
	if err == nil {
		w.word(0)
		return
	}
	w.word(1)
	w.text("bad_config")
	w.text(err.Error())
}

// done gives the structure to the host.
func (w *writer) done() uint32 {
	// A result's memory is read as large as its largest case.
	for len(w.words) < 8 {
		w.word(0)
	}
	block := unsafe.Slice((*byte)(unsafe.Pointer(&w.words[0])), 4*len(w.words))
	kept = append(kept, block)
	return address(block)
}
