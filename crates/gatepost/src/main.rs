//! The program; all of it is in the library, where the fuzz targets find it too.

fn main() -> std::process::ExitCode {
    gatepost::main()
}
