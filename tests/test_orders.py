"""Orders over HTTP."""

from __future__ import annotations

import factories


def test_an_order_is_placed_and_the_customer_told(client, deliver, notifier):
    customer = factories.customer(client, phone_number="0713 812 939")
    placed = client.post_json("/api/orders/", {"item": "Tea", "amount": 10000, "customer": customer["id"]}, status=201)
    assert placed.json["notification"]["status"] == "queued"
    assert placed.headers["Location"] == f"http://127.0.0.1:6543/api/orders/{placed.json['id']}"
    assert deliver() == 1
    told = client.get(f"/api/orders/{placed.json['id']}").json["notification"]
    assert told["status"] == "sent"
    assert told["cost"] == {"amount": "0.8000", "currency": "KES"}
    assert [message.to for message in notifier.sent] == ["+254713812939"]
    assert notifier.sent[0].text == "Your order has been created. Thank you for shopping with us!"
