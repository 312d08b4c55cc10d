;; contract: 0.2.0
;; imports: log
;; exports: enrich-hook open-hook close-hook
;; Its enricher carries one attribute of two letters; the later hooks log the name of the first
;; attribute that they get back, and the generation. Arguments lie in memory, and the list of
;; carried attributes is the last of them; the generation is 56 behind their beginning.
(import "nowconnect:plugin/log@0.2.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(data (i32.const 512) "kv")
(func (export "nowconnect:plugin/enrich-hook@0.2.0#signals") (param i32) (result i32)
  (i32.store (i32.const 76) (i32.const 160))
  (i32.store (i32.const 80) (i32.const 1))
  (i32.store (i32.const 160) (i32.const 512))
  (i32.store (i32.const 164) (i32.const 1))
  (i32.store (i32.const 168) (i32.const 513))
  (i32.store (i32.const 172) (i32.const 1))
  (i32.const 64))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param $args i32) (result i32)
  (call $tell (i32.load offset=244 (local.get $args)))
  (if (i64.ne (i64.load offset=56 (local.get $args)) (i64.const 7)) (then (unreachable)))
  (i32.const 64))
(func (export "nowconnect:plugin/close-hook@0.2.0#on-close") (param $args i32)
  (call $tell (i32.load offset=248 (local.get $args))))
(func $tell (param $first i32)
  (call $write (i32.const 2)
    (i32.load (local.get $first)) (i32.load offset=4 (local.get $first))
    (i32.const 0) (i32.const 0)))
