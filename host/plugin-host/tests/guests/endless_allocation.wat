;; exports: open-hook
;; Takes a page and writes to it until it is refused one, then gives up as a program does.
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (local $page i32)
  (loop $more
    (local.set $page (memory.grow (i32.const 1)))
    (if (i32.eq (local.get $page) (i32.const -1)) (then (unreachable)))
    (i32.store8 (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
    (br $more))
  (unreachable))
