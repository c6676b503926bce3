use std::fmt;

use serde::{Deserialize, Serialize};

/// A programming language with a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3; the statements of Python 2 are read as well.
    #[serde(alias = "Python", alias = "py")]
    #[value(alias = "py")]
    Python,
    /// Java.
    #[serde(alias = "Java")]
    Java,
    /// C.
    #[serde(alias = "C")]
    C,
    /// C++, which reads nearly all of C too.
    #[serde(alias = "C++", alias = "c++", alias = "cxx")]
    #[value(alias = "c++", alias = "cxx")]
    Cpp,
    /// JavaScript, with JSX.
    #[serde(alias = "JavaScript", alias = "js")]
    #[value(name = "javascript", alias = "js")]
    JavaScript,
    /// Go.
    #[serde(alias = "Go", alias = "golang")]
    #[value(alias = "golang")]
    Go,
    /// Rust.
    #[serde(alias = "Rust", alias = "rs")]
    #[value(alias = "rs")]
    Rust,
    /// Ruby.
    #[serde(alias = "Ruby", alias = "rb")]
    #[value(alias = "rb")]
    Ruby,
    /// PHP, with or without its opening tag.
    #[serde(alias = "PHP")]
    Php,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Python,
        Self::Java,
        Self::C,
        Self::Cpp,
        Self::JavaScript,
        Self::Go,
        Self::Rust,
        Self::Ruby,
        Self::Php,
    ];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Java => "java",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::JavaScript => "javascript",
            Self::Go => "go",
            Self::Rust => "rust",
            Self::Ruby => "ruby",
            Self::Php => "php",
        }
    }

    /// Whether `code` is a whole file of PHP, by the tag that it begins with: the grammar of files takes
    /// all before it for text.
    pub(super) fn is_file(self, code: &str) -> bool {
        self == Self::Php && code.trim_start().starts_with("<?")
    }

    /// The grammar that reads `code`.
    pub(super) fn grammar(self, code: &str) -> tree_sitter::Language {
        match self {
            Self::Python => tree_sitter_python::LANGUAGE,
            Self::Java => tree_sitter_java::LANGUAGE,
            Self::C => tree_sitter_c::LANGUAGE,
            Self::Cpp => tree_sitter_cpp::LANGUAGE,
            Self::JavaScript => tree_sitter_javascript::LANGUAGE,
            Self::Go => tree_sitter_go::LANGUAGE,
            Self::Rust => tree_sitter_rust::LANGUAGE,
            Self::Ruby => tree_sitter_ruby::LANGUAGE,
            Self::Php if self.is_file(code) => tree_sitter_php::LANGUAGE_PHP,
            Self::Php => tree_sitter_php::LANGUAGE_PHP_ONLY,
        }
        .into()
    }

    /// What stands around a method in its file, where a method cannot stand alone.
    pub(super) fn around_a_method(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Python => Some(["class A:\n", ""]),
            Self::Java | Self::JavaScript | Self::Php => Some(["class A {\n", "\n}"]),
            Self::Cpp => Some(["class A {\n", "\n};"]),
            Self::Rust => Some(["impl A {\n", "\n}"]),
            Self::C | Self::Go | Self::Ruby => None,
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn one_name_everywhere_and_the_names_of_data_sets() {
        for language in Language::ALL {
            let name = language.to_string();
            assert_eq!(Language::from_str(&name, false), Ok(language));
            let json = serde_json::to_string(&language).expect("a name");
            assert_eq!(json, format!("\"{name}\""));
            let read: Language = serde_json::from_str(&json).expect("the same");
            assert_eq!(read, language);
        }
        for (name, language) in [("c++", Language::Cpp), ("js", Language::JavaScript)] {
            assert_eq!(Language::from_str(name, false), Ok(language));
            let read: Language = serde_json::from_str(&format!("\"{name}\"")).expect("an alias");
            assert_eq!(read, language);
        }
        assert!(serde_json::from_str::<Language>("\"cobol\"").is_err());
    }
}
