//! Path and method → policy. The path decides first, so a known path with a wrong method is 405 with
//! `Allow` and not 404. Knows nothing of what the policy says.

use http::Method;

/// Routes by path pattern (`matchit` syntax), then by method.
#[derive(Clone, Debug)]
pub struct Table<P> {
    paths: matchit::Router<usize>,
    entries: Vec<Entry<P>>,
}

#[derive(Clone, Debug)]
struct Entry<P> {
    pattern: String,
    by_method: Vec<(Vec<Method>, P)>,
}

/// Why nothing was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoRoute {
    Path,
    /// The methods that the path does take, as `Allow` wants them.
    Method {
        allow: String,
    },
}

/// Why a table could not be built.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BuildError {
    #[error("`{pattern}`: {why}")]
    Pattern { pattern: String, why: String },
    #[error("`{pattern}` is declared twice for {method}")]
    Twice { pattern: String, method: String },
}

impl<P> Table<P> {
    /// Builds the table; an empty list of methods means any method.
    pub fn build(
        routes: impl IntoIterator<Item = (String, Vec<Method>, P)>,
    ) -> Result<Self, BuildError> {
        let mut table = Self {
            paths: matchit::Router::new(),
            entries: Vec::new(),
        };
        for (pattern, methods, policy) in routes {
            let index = table.entry(&pattern)?;
            let Some(entry) = table.entries.get_mut(index) else {
                continue;
            };
            if let Some(method) = entry.overlap(&methods) {
                return Err(BuildError::Twice { pattern, method });
            }
            entry.by_method.push((methods, policy));
        }
        Ok(table)
    }

    /// The policy for a method on a normalised path. HEAD is served wherever GET is.
    pub fn find(&self, method: &Method, path: &str) -> Result<&P, NoRoute> {
        let found = self.paths.at(path).map_err(|_| NoRoute::Path)?;
        let entry = self.entries.get(*found.value).ok_or(NoRoute::Path)?;
        entry.policy(method).ok_or_else(|| NoRoute::Method {
            allow: entry.allow(),
        })
    }

    /// The methods that a path takes, for a preflight answer.
    pub fn methods(&self, path: &str) -> Option<String> {
        let found = self.paths.at(path).ok()?;
        self.entries.get(*found.value).map(Entry::allow)
    }

    fn entry(&mut self, pattern: &str) -> Result<usize, BuildError> {
        if let Some(index) = self.entries.iter().position(|e| e.pattern == pattern) {
            return Ok(index);
        }
        let index = self.entries.len();
        self.paths
            .insert(pattern, index)
            .map_err(|e| BuildError::Pattern {
                pattern: pattern.into(),
                why: e.to_string(),
            })?;
        self.entries.push(Entry {
            pattern: pattern.into(),
            by_method: Vec::new(),
        });
        Ok(index)
    }
}

impl<P> Entry<P> {
    fn policy(&self, method: &Method) -> Option<&P> {
        let asked = |wanted: &Method| {
            self.by_method
                .iter()
                .find(|(methods, _)| methods.is_empty() || methods.contains(wanted))
                .map(|(_, policy)| policy)
        };
        let as_get = || {
            (method == Method::HEAD)
                .then(|| asked(&Method::GET))
                .flatten()
        };
        asked(method).or_else(as_get)
    }

    fn overlap(&self, methods: &[Method]) -> Option<String> {
        for (taken, _) in &self.by_method {
            if taken.is_empty() || methods.is_empty() {
                return Some("any method".into());
            }
            if let Some(method) = methods.iter().find(|m| taken.contains(m)) {
                return Some(method.to_string());
            }
        }
        None
    }

    fn allow(&self) -> String {
        let mut names: Vec<&str> = self
            .by_method
            .iter()
            .flat_map(|(methods, _)| methods.iter().map(Method::as_str))
            .collect();
        if names.contains(&"GET") && !names.contains(&"HEAD") {
            names.push("HEAD");
        }
        names.push("OPTIONS");
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{BuildError, NoRoute, Table};

    fn table() -> Table<&'static str> {
        Table::build([
            ("/orders".into(), vec![Method::GET], "list"),
            ("/orders".into(), vec![Method::POST], "create"),
            ("/orders/{id}".into(), vec![], "one"),
            ("/files/{*rest}".into(), vec![Method::GET], "file"),
        ])
        .unwrap()
    }

    #[test]
    fn method_and_path_pick_the_policy() {
        let table = table();
        assert_eq!(table.find(&Method::POST, "/orders"), Ok(&"create"));
        assert_eq!(table.find(&Method::HEAD, "/orders"), Ok(&"list"));
        assert_eq!(table.find(&Method::DELETE, "/orders/7"), Ok(&"one"));
        assert_eq!(table.find(&Method::GET, "/files/a/b"), Ok(&"file"));
    }

    #[test]
    fn a_known_path_with_another_method_says_what_it_takes() {
        let allow = "GET, HEAD, OPTIONS, POST".to_string();
        assert_eq!(
            table().find(&Method::PUT, "/orders"),
            Err(NoRoute::Method { allow })
        );
        assert_eq!(table().find(&Method::GET, "/nowhere"), Err(NoRoute::Path));
    }

    #[test]
    fn the_same_path_and_method_twice_is_refused() {
        let twice = [
            ("/a".to_string(), vec![Method::GET], 1),
            ("/a".to_string(), vec![Method::GET, Method::PUT], 2),
        ];
        let error = Table::build(twice).unwrap_err();
        assert_eq!(
            error,
            BuildError::Twice {
                pattern: "/a".into(),
                method: "GET".into()
            }
        );
    }
}
