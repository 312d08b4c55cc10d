;; exports: open-hook
(data (i32.const 512) "Not A Code")
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (i32.store8 (i32.const 72) (i32.const 1))
  (i32.store (i32.const 80) (i32.const 512))
  (i32.store (i32.const 84) (i32.const 10))
  (i32.const 64))
