"""What people see: plan, progress, tables."""
