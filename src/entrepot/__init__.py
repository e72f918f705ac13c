"""Entrepot: a managed file transfer pipeline, from the SFTP login to the delivery."""

__version__ = "0.1.0"
