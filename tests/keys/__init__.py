"""Every key of the schema, and where its value ends up."""
