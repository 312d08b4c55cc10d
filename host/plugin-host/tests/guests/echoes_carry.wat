;; imports: log
;; exports: open-hook close-hook
;; Carries one attribute of two letters, and logs the name of the first that it gets back. The
;; arguments of `on-close` lie in memory: the list of carried attributes is their last.
(import "nowconnect:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(data (i32.const 512) "kv")
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (i32.store (i32.const 120) (i32.const 160))
  (i32.store (i32.const 124) (i32.const 1))
  (i32.store (i32.const 160) (i32.const 512))
  (i32.store (i32.const 164) (i32.const 1))
  (i32.store (i32.const 168) (i32.const 513))
  (i32.store (i32.const 172) (i32.const 1))
  (i32.const 64))
(func (export "nowconnect:plugin/close-hook@0.1.0#on-close") (param $args i32)
  (local $first i32)
  (local.set $first (i32.load offset=120 (local.get $args)))
  (call $write (i32.const 2)
    (i32.load (local.get $first)) (i32.load offset=4 (local.get $first))
    (i32.const 0) (i32.const 0)))
