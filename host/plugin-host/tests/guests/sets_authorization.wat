;; exports: http-request-hook
;; One edit: set `authorization` to `x`.
(data (i32.const 512) "authorizationx")
(func (export "nowconnect:plugin/http-request-hook@0.1.0#on-request") (param i32) (result i32)
  (i32.store (i32.const 72) (i32.const 256))
  (i32.store (i32.const 76) (i32.const 1))
  (i32.store (i32.const 260) (i32.const 512))
  (i32.store (i32.const 264) (i32.const 13))
  (i32.store (i32.const 268) (i32.const 525))
  (i32.store (i32.const 272) (i32.const 1))
  (i32.const 64))
