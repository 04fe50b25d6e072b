"""What the benchmark of population models is made of."""
