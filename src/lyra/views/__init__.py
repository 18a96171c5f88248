"""What is known of the input: pictures, depth, cameras, and what moves."""
