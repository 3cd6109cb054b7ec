//! The same command under the name `onebit-cli`.

fn main() -> std::process::ExitCode {
    onebit_cli::main()
}
