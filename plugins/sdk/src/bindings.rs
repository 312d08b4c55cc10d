//! What `wit-bindgen` makes of `wit/0.2`: the shared shapes and the capabilities once, and for
//! each hook a module of its own, so that a component exports the hooks it names and no others.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    reason = "the bindings are generated"
)]

pub mod host {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-host;

            world host {
                import nowconnect:plugin/types@0.2.0;
                import nowconnect:plugin/http-types@0.2.0;
                import nowconnect:plugin/log@0.2.0;
                import nowconnect:plugin/config@0.2.0;
                import nowconnect:plugin/kv@0.2.0;
                import nowconnect:plugin/clock@0.2.0;
                import nowconnect:plugin/metrics@0.2.0;
                import nowconnect:plugin/data@0.2.0;
                import nowconnect:plugin/fetch@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        generate_all,
        additional_derives: [PartialEq, Eq],
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-lifecycle;

            world sdk-lifecycle {
                export nowconnect:plugin/lifecycle@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
    });
}

pub mod hello {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-hello;

            world sdk-hello {
                export nowconnect:plugin/hello-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_hello",
    });
}

pub mod bye {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-bye;

            world sdk-bye {
                export nowconnect:plugin/bye-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_bye",
    });
}

pub mod enrich {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-enrich;

            world sdk-enrich {
                export nowconnect:plugin/enrich-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_enrich",
    });
}

pub mod open {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-open;

            world sdk-open {
                export nowconnect:plugin/open-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_open",
    });
}

pub mod close {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-close;

            world sdk-close {
                export nowconnect:plugin/close-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_close",
    });
}

pub mod http_request {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-http-request;

            world sdk-http-request {
                export nowconnect:plugin/http-request-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
            "nowconnect:plugin/http-types@0.2.0": crate::bindings::host::nowconnect::plugin::http_types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_http_request",
    });
}

pub mod http_response {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-http-response;

            world sdk-http-response {
                export nowconnect:plugin/http-response-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
            "nowconnect:plugin/http-types@0.2.0": crate::bindings::host::nowconnect::plugin::http_types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_http_response",
    });
}

pub mod mask {
    wit_bindgen::generate!({
        inline: r#"
            package nowconnect:sdk-mask;

            world sdk-mask {
                export nowconnect:plugin/mask-hook@0.2.0;
            }
        "#,
        path: "../../wit/0.2",
        with: {
            "nowconnect:plugin/types@0.2.0": crate::bindings::host::nowconnect::plugin::types,
        },
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_mask",
    });
}
