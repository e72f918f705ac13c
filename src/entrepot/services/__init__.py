"""One package per AWS service, named as botocore names it; each owns its tables and its operations."""
