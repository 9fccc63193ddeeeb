//! The program; all of it is in the library, where the fuzz targets find it too.

/// Sessions come and go by the thousand: memory that they leave must be found again, and given back. The
/// C libraries use it too. `.cargo/config.toml` says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    gatepost::main()
}
