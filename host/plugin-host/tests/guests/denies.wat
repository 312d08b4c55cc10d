;; exports: open-hook hello-hook
;; A denial is case 1 of the verdict and three strings. The verdict of `open` is aligned to 8
;; bytes, that of `hello` to 4.
(data (i32.const 512) "too_lateclosedafter\0ahours")
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (i32.store8 (i32.const 72) (i32.const 1))
  (call $denial (i32.const 80))
  (i32.const 64))
(func (export "nowconnect:plugin/hello-hook@0.1.0#on-hello") (param i32) (result i32)
  (i32.store8 (i32.const 68) (i32.const 1))
  (call $denial (i32.const 72))
  (i32.const 64))
(func $denial (param $at i32)
  (i32.store (local.get $at) (i32.const 512))
  (i32.store offset=4 (local.get $at) (i32.const 8))
  (i32.store offset=8 (local.get $at) (i32.const 520))
  (i32.store offset=12 (local.get $at) (i32.const 6))
  (i32.store offset=16 (local.get $at) (i32.const 526))
  (i32.store offset=20 (local.get $at) (i32.const 11)))
