//! Patterns of paths: `*` stays inside a folder, `**` does not, `[!n]` is any character but `n`.

/// Whether `path` is what `pattern` means. Both are relative to the root, without a leading `/`.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), path.chars().collect());
    is_match(&pattern, &path)
}

fn is_match(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        // `folder/**` is everything in the folder and the folder itself.
        ['/', '*', '*'] => path.is_empty() || path.first() == Some(&'/'),
        ['*', '*', rest @ ..] => suffixes(path).any(|tail| is_match(rest, tail)),
        ['*', rest @ ..] => {
            let inside = path.iter().take_while(|letter| **letter != '/').count();
            suffixes(path).take(inside + 1).any(|tail| is_match(rest, tail))
        }
        ['[', '!', not, ']', rest @ ..] => path
            .split_first()
            .is_some_and(|(letter, tail)| letter != not && *letter != '/' && is_match(rest, tail)),
        [letter, rest @ ..] => {
            path.split_first().is_some_and(|(first, tail)| first == letter && is_match(rest, tail))
        }
    }
}

fn suffixes(path: &[char]) -> impl Iterator<Item = &[char]> {
    (0..=path.len()).filter_map(|at| path.get(at..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_mean_what_the_spec_says() {
        for (pattern, path, wanted) in [
            ("usr/share/doc/**", "usr/share/doc", true),
            ("usr/share/doc/**", "usr/share/doc/bash/copyright", true),
            ("usr/share/doc/**", "usr/share/docs", false),
            ("usr/bin/systemd*", "usr/bin/systemd-run", true),
            ("usr/bin/systemd*", "usr/bin/systemd/run", false),
            ("etc/cron*/**", "etc/cron.daily/x", true),
            ("usr/lib/systemd/systemd-[!n]*", "usr/lib/systemd/systemd-networkd", false),
            ("usr/lib/systemd/systemd-[!n]*", "usr/lib/systemd/systemd-logind", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/b", "a/b/c", false),
        ] {
            assert_eq!(matches(pattern, path), wanted, "{pattern} {path}");
        }
    }
}
