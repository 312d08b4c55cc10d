;; exports: enrich-hook
;; Gives `DE` and `admin`.
(data (i32.const 512) "DEadmin")
(func (export "nowconnect:plugin/enrich-hook@0.1.0#signals") (param i32) (result i32)
  (i32.store (i32.const 68) (i32.const 256))
  (i32.store (i32.const 72) (i32.const 2))
  (i32.store (i32.const 256) (i32.const 512))
  (i32.store (i32.const 260) (i32.const 2))
  (i32.store (i32.const 264) (i32.const 514))
  (i32.store (i32.const 268) (i32.const 5))
  (i32.const 64))
