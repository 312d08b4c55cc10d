;; exports: hello-hook
;; Accepts `root`, which was never announced, and `db`.
(data (i32.const 512) "rootdb")
(func (export "nowconnect:plugin/hello-hook@0.1.0#on-hello") (param i32) (result i32)
  (i32.store (i32.const 72) (i32.const 256))
  (i32.store (i32.const 76) (i32.const 2))
  (i32.store (i32.const 256) (i32.const 512))
  (i32.store (i32.const 260) (i32.const 4))
  (i32.store (i32.const 264) (i32.const 516))
  (i32.store (i32.const 268) (i32.const 2))
  (i32.const 64))
