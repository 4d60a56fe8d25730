//! A stub takes a kernel that says version 1 or later in its header.

fn main() {
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "uefi") {
        println!("cargo::rustc-link-arg-bins=/VERSION:1.1");
    }
}
