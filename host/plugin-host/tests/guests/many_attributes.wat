;; exports: open-hook
;; Allows with eight attributes of 1 000 bytes each: within the bound of one plugin. The list of
;; attributes of an allowing answer is at 48, an attribute is two strings.
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (local $at i32)
  (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1000))
  (i32.store (i32.const 112) (i32.const 160))
  (i32.store (i32.const 116) (i32.const 8))
  (local.set $at (i32.const 160))
  (loop $next
    (i32.store (local.get $at) (i32.const 1024))
    (i32.store offset=4 (local.get $at) (i32.const 1))
    (i32.store offset=8 (local.get $at) (i32.const 1024))
    (i32.store offset=12 (local.get $at) (i32.const 1000))
    (local.set $at (i32.add (local.get $at) (i32.const 16)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 288))))
  (i32.const 64))
