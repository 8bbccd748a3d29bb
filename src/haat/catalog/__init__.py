"""What the market offers: services, their versions and prices, and how they are found."""
