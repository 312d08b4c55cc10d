;; exports: open-hook
;; Allows with one attribute whose value has 100 000 bytes: within its memory, over its output.
;; The list of attributes of an allowing answer is at 48, an attribute is two strings.
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (i32.store (i32.const 112) (i32.const 160))
  (i32.store (i32.const 116) (i32.const 1))
  (i32.store (i32.const 168) (i32.const 0))
  (i32.store (i32.const 172) (i32.const 100000))
  (i32.const 64))
