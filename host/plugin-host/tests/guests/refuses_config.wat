;; exports: open-hook
;; lifecycle: own
;; `check-config` says bad-config "no".
(data (i32.const 512) "no")
(func (export "nowconnect:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 64))
(func (export "nowconnect:plugin/lifecycle@0.1.0#check-config") (param i32 i32) (result i32)
  (i32.store8 (i32.const 64) (i32.const 1))
  (i32.store (i32.const 72) (i32.const 512))
  (i32.store (i32.const 76) (i32.const 2))
  (i32.const 64))
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32) (i32.const 64))
