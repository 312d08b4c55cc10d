;; contract: 0.2.0
;; exports: hello-hook bye-hook enrich-hook open-hook close-hook http-request-hook http-response-hook mask-hook
(func (export "nowconnect:plugin/hello-hook@0.2.0#on-hello") (param i32) (result i32) (i32.const 64))
(func (export "nowconnect:plugin/bye-hook@0.2.0#on-bye") (param i32))
(func (export "nowconnect:plugin/enrich-hook@0.2.0#signals") (param i32) (result i32) (i32.const 64))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32) (i32.const 64))
(func (export "nowconnect:plugin/close-hook@0.2.0#on-close") (param i32))
(func (export "nowconnect:plugin/http-request-hook@0.2.0#on-request") (param i32) (result i32) (i32.const 64))
(func (export "nowconnect:plugin/http-response-hook@0.2.0#on-response") (param i32) (result i32) (i32.const 64))
(func (export "nowconnect:plugin/mask-hook@0.2.0#mask-entries") (param i32) (result i32) (i32.const 64))
