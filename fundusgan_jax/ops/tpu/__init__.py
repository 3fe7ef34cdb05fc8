"""Forms of operations for TPUs; ops/ dispatches to them."""
