"""Measurements beside OpenSSH's own server and `rclone serve sftp`, in one run on one machine. `make bench` runs all."""
