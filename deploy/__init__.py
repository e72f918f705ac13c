"""What other monitoring tools need to work with Entrepot."""
