;; exports: open-hook
;; Traps when called a second time in one memory: shows that each call has a fresh one.
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (if (i32.load (i32.const 2048)) (then (unreachable)))
  (i32.store (i32.const 2048) (i32.const 1))
  (i32.const 64))
