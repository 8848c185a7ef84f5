"""What can be configured (`model`) and how it is read (`loading`): TOML and environment in, one immutable `Config` out."""
