//! The files of each template. `{{name}}` stands for the plugin's name, `{{module}}` for what
//! cargo makes of it.

use super::Language;

/// One file of a template.
pub(super) struct File {
    /// Within the plugin's folder.
    pub(super) path: &'static str,
    pub(super) text: &'static str,
}

/// Files by their place in the plugin's folder and in this source tree.
macro_rules! embedded {
    ($($path:literal <- $source:literal),* $(,)?) => {
        [$(File { path: $path, text: include_str!(concat!("../", $source)) }),*]
    };
}

/// The contract in a folder of the template.
macro_rules! contract {
    ($folder:literal) => {
        embedded_contract!($folder: "capabilities", "flow", "http", "lifecycle", "mask", "session", "types", "worlds")
    };
}

macro_rules! embedded_contract {
    ($folder:literal: $($file:literal),*) => {
        [$(File {
            path: concat!($folder, "/", $file, ".wit"),
            text: include_str!(concat!("../../../../../wit/0.2/", $file, ".wit")),
        }),*]
    };
}

/// All files of a language's template.
pub(super) fn files(language: Language) -> Vec<File> {
    let mut all = Vec::from(embedded![
        "Makefile" <- "templates/common/Makefile",
        "cases/open.json" <- "templates/common/cases/open.json",
        "config.schema.json" <- "templates/common/config.schema.json",
    ]);
    match language {
        Language::Rust => {
            all.extend(rust());
            all.extend(contract!("wit/0.2"));
        }
        Language::JavaScript => {
            all.extend(javascript());
            all.extend(world());
            all.extend(contract!("wit/deps/nowconnect-plugin"));
        }
        Language::Python => {
            all.extend(python());
            all.extend(world());
            all.extend(contract!("wit/deps/nowconnect-plugin"));
        }
    }
    all
}

fn rust() -> [File; 15] {
    embedded![
        ".cargo/config.toml" <- "templates/rust/cargo-config.toml",
        ".gitignore" <- "templates/rust/gitignore",
        "Cargo.toml" <- "templates/rust/Cargo.toml",
        "README.md" <- "templates/rust/README.md",
        "build.sh" <- "templates/rust/build.sh",
        "plugin.toml" <- "templates/rust/plugin.toml",
        "src/lib.rs" <- "templates/rust/src/lib.rs",
        "vendor/bump/Cargo.toml" <- "../../../../plugins/bump/Cargo.toml",
        "vendor/bump/src/lib.rs" <- "../../../../plugins/bump/src/lib.rs",
        "vendor/sdk/Cargo.toml" <- "../../../../plugins/sdk/Cargo.toml",
        "vendor/sdk/README.md" <- "../../../../plugins/sdk/README.md",
        "vendor/sdk/src/bindings.rs" <- "../../../../plugins/sdk/src/bindings.rs",
        "vendor/sdk/src/glue.rs" <- "../../../../plugins/sdk/src/glue.rs",
        "vendor/sdk/src/lib.rs" <- "../../../../plugins/sdk/src/lib.rs",
        "vendor/sdk/src/settings.rs" <- "../../../../plugins/sdk/src/settings.rs",
    ]
}

fn javascript() -> [File; 6] {
    embedded![
        ".gitignore" <- "templates/javascript/gitignore",
        "README.md" <- "templates/javascript/README.md",
        "build.sh" <- "templates/javascript/build.sh",
        "package.json" <- "templates/javascript/package.json",
        "plugin.js" <- "templates/javascript/plugin.js",
        "plugin.toml" <- "templates/javascript/plugin.toml",
    ]
}

fn python() -> [File; 6] {
    embedded![
        ".gitignore" <- "templates/python/gitignore",
        "README.md" <- "templates/python/README.md",
        "app.py" <- "templates/python/app.py",
        "build.sh" <- "templates/python/build.sh",
        "plugin.toml" <- "templates/python/plugin.toml",
        "requirements.txt" <- "templates/python/requirements.txt",
    ]
}

fn world() -> [File; 1] {
    embedded!["wit/world.wit" <- "templates/common/world.wit"]
}
