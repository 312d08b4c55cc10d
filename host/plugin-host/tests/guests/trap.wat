;; exports: open-hook enrich-hook close-hook http-request-hook mask-hook
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32) (unreachable))
(func (export "nowconnect:plugin/enrich-hook@0.1.0#signals") (param i32) (result i32) (unreachable))
(func (export "nowconnect:plugin/close-hook@0.1.0#on-close") (param i32) (unreachable))
(func (export "nowconnect:plugin/http-request-hook@0.1.0#on-request") (param i32) (result i32) (unreachable))
(func (export "nowconnect:plugin/mask-hook@0.1.0#mask-entries") (param i32) (result i32) (unreachable))
